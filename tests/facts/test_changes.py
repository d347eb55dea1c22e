WRITTEN = [
    [
        ["old", "test"],
        {"foo": "bar", "more": {"deep": [1, None, "x"]}},
        *("noted", "renamed", "described", "B", "eval"),
    ],
    [
        {"acc": 7, "loss": 0},
        "saved",
        ["a", "b"],
        {"acc": 1, "loss": 0, "cool": 1000, "spaced": 1, "nested": {"a": {"b": 2}}, "fresh": 6, "by_name": 3},
        {"loss": 0},
    ],
    [{"cool": 1000}, "running", "pending", "failed", "pending"],
]
