"""How a model is laid over ranks: layout checks, mesh, sharding, pipeline, engine."""
