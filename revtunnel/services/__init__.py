"""Floor 3: the processes: settings, doors, service trees."""
