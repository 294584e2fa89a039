"""What the chapters run: data, experiments and the reference answers of the exercises."""
