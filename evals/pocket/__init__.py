"""The embedded target model: its world, its true labels, its trainer and its report."""
