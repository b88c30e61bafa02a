"""Records in MongoDB: the client, the indexes, and the guarded writes that everything durable is made of."""
