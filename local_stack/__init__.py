"""A real Kafka broker and a real ClickHouse engine on one machine, from packages alone."""
