"""What preprocess wrote, as every later stage reads it: tables, packed pictures, picture files."""
