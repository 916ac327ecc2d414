"""The engine under the verbs that change many documents: ranges, batches, checkpoints, workers."""
