"""What the site's pages get at build time beside their Markdown. Not part of the wheel."""
