"""What is said of characters in titles that no font of the machine has."""

# What the record of a figure calls them.
LACKING = "characters_without_font"


def lacking_font(characters: str) -> str:
    """What a figure says of characters that no font of the machine that drew it has."""
    shown = " ".join(characters[:20]) + (" …" if len(characters) > 20 else "")
    return (
        f"No font of the machine that drew the figures has {shown}: PDF and PNG have the configuration's "
        "name in place of the title, the SVG has the title. With such a font (Noto Sans CJK for Chinese, Japanese and Korean; Noto Sans "
        "for other scripts), remove results/store/plot and results/store/page, and run snakemake again."
    )
