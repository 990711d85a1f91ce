"""What a card says of an output's form."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CardWords:
    """Sentences of one form. `{base}` stands for the base model's name."""

    opening: str  # of an enhancement; the number of directions follows
    undo: str
    trained: str = ""  # opening of a training; what it was trained on follows
    trained_undo: str = ""
    covered: str = "this copy"  # what the base model's licence applies to
    use: str = ""
    stored: bool = True  # whether gains are realised in stored weights
    copies: bool = False  # whether the base model's own files, its licence among them, are part of it
    library: str = "transformers"
