"""What can be trained: options, recipes, what a step is. One file a task, over the rooms below."""
