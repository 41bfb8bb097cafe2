"""Words to embeddings: vocabulary (classes in words) and text bank (prompt ensemble, cached)."""
