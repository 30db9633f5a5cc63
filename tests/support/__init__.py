"""What several tests use; fixtures are in the conftest files, and no test module imports another."""
