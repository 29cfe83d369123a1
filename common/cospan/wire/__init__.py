"""Between domain values and protobuf messages: codec, limits and the error table."""
