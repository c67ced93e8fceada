"""One stream from `open` to `close`: what its client, its engine and its sinks do. It knows of no other stream."""
