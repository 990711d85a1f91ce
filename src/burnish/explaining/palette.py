"""The colours of pages and charts."""

# Name: (light, dark). The series' colours follow Okabe and Ito (2008), darkened or lightened until they stand out from the paper.
PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14171a"),
    "panel": ("#f6f7f8", "#1c2024"),
    "ink": ("#1c2126", "#e7e9eb"),
    "muted": ("#59636e", "#a3adb7"),
    "line": ("#b9c0c7", "#4b545d"),
    "grid": ("#e6e9ec", "#2a3036"),
    "accent": ("#0b62a4", "#6bb3ec"),
    "second": ("#b84a00", "#f2955b"),
    "third": ("#00755a", "#4cc3a0"),
    "fourth": ("#8a3f78", "#dd9bcb"),
    "fifth": ("#7a6000", "#d9bd4c"),
    "sixth": ("#4d5761", "#c3cbd3"),
}
