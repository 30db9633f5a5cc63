"""The ablation: its cells, and the tables, figures and page made of them."""
