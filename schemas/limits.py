"""How long, deep and large a thing may be: one definition for HTTP and Kafka alike."""

EVENTS_MAX = 1000
"""Events of one bulk request."""

RECORD_EVENTS_MAX = 100_000
"""Events of one native Kafka record; a longer array is one dead letter."""

EVENT_BYTES_MAX = 1 << 20
"""One event's JSON text."""

BODY_BYTES_MAX = 10 << 20
"""One request's body, or one native record, after decompression."""

BLOCK_BYTES_MAX = 6 << 20
"""Where the packer cuts a block: more than a fourth of what it gathers, for four partitions."""

MESSAGE_BYTES_MAX = 16 << 20
"""`max.message.bytes` of every topic; producers and consumers are sized alike."""

NAME_LENGTH_MAX = 255
"""Characters of an event name, an id, a customer, a source, a property key in a feature."""

DEPTH_MAX = 32
"""Nesting of one event, itself included."""

INTEGER_DIGITS_MAX = 20
FRACTION_DIGITS_MAX = 18
"""Digits of a value before and after its point: Decimal(38, 18) in the store."""

EXPONENT_DIGITS_MAX = 4
"""Digits of a JSON number's exponent that are looked at; a longer one is out of range."""

FUTURE_MS_MAX = 24 * 3_600_000
"""How far a timestamp may lie after its receipt."""

BATCH_BYTES_MAX = 32 << 20
BATCH_RECORDS_MAX = 200_000
BATCH_HEADERS_MAX = 100_000
"""What one batch of a Kafka producer may hold once it is decompressed; more is one dead letter."""
