"""What the records of measurements that tests make up have in common: where they are said to come from."""

ABOUT = {
    "device": "A GPU",
    "machine": "a box",
    "date": "2027-01-01",
    "commit": "c" * 40,
    "command": "x --y",
}
