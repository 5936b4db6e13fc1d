"""What is not ours: WeChat and ZEGO."""
