"""Training: batches, objective, layers, optimizer, loop, checkpoints, and the decision what to resume.

Knows neither the database nor the screen nor where data and models come from: rows and a model come in, events go out.
"""
