"""A training run that survives kills: its folder, its plan, its loop. It knows no model: a task
(task.py) hands it one with an optimiser and a step."""
