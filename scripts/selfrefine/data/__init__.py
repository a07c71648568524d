"""Raw files, benchmarks as items, prompts, demonstrations."""
