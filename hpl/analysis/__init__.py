"""What the evaluate stage reports beyond both protocols: composed queries, strangers, rank lists, floors, attention."""
