"""The gateway: events over HTTP into the log. 202 once the broker has acknowledged them."""
