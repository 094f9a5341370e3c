"""Networks: the VoCo encoder, its projection head, and Swin UNETR."""
