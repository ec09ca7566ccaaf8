"""One example of a downstream task, as an annotation file gives it; images are not read yet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """An example. Which parts it has depends on the task (``pipelines/finetune/tasks``).

    ====================  ======  =============================  ==================================
    task                  images  texts                          labels
    ====================  ======  =============================  ==================================
    visual questions      1       the question                   each annotator's answer
    sentences of images   2       the sentence                   ``True`` or ``False``
    retrieval             1       every caption                  none
    image classification  1       none                           one class, or several
    text classification   0       a sentence, or two             one class, or a number as text
    ====================  ======  =============================  ==================================
    """

    id: str
    "Id within the split, by which a submission names it; unique."
    images: tuple[str, ...] = ()
    "Names of the image files."
    texts: tuple[str, ...] = ()
    "Cleaned texts."
    labels: tuple[str, ...] = ()
    "Labels as annotated; empty where the split has none."
    main_label: str = ""
    "The label that the annotators agree on most, where the file names it."
    reason: str = ""
    "Why the example is a reject; empty for a good one."
    detail: str = ""
    "What exactly is wrong with it, with the place in the file."
