"""What any long job needs: device, processes, checkpoints, curves, provenance."""
