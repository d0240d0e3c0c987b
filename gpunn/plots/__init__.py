"""Pictures of networks, trainings and results, drawn with matplotlib: the extra `plots`."""
