"""What runs in the page: the browser's device, the session that obeys the page, and the bundle's build."""
