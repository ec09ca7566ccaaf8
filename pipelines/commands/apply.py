"""Commands that apply a model to own inputs: ``embed``, ``caption``, ``detect`` and the like.

Without ``--workdir`` a command computes in its own process and prints the results. With it, the
same code runs as a workflow, which continues where it was killed and writes a Parquet dataset.
"""

from pipelines.commands.apply_model import (
    apply_model,
    apply_recipe,
    decoding_section,
    inputs_section,
    model_section,
)
from pipelines.commands.apply_options import (
    Beams,
    ImageColumn,
    Images,
    Inputs,
    Json,
    Labels,
    LengthPenalty,
    MaxLength,
    MinScore,
    Model,
    NumBest,
    Overrides,
    Question,
    QuestionColumn,
    SecondImageColumn,
    SecondImages,
    SecondTextColumn,
    SecondTexts,
    Seed,
    Temperature,
    TextColumn,
    TextFiles,
    Texts,
    Tokenizer,
    TopP,
    WorkdirOrNone,
)


def embed(
    model: Model,
    inputs: Inputs = None,
    text: Texts = [],  # noqa: B006
    texts: TextFiles = [],  # noqa: B006
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    tokenizer: Tokenizer = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Compute features of images and texts, among which `beit3 search` finds the nearest ones.

    Example: beit3 embed --model runs/demo-retrieval photos --workdir runs/photos
    """
    given = inputs_section(inputs, text, texts, image_column, text_column)
    apply_model(apply_recipe("embed", model_section(model, tokenizer), given, set_), workdir, json_)


def caption(
    model: Model,
    images: Images,
    image_column: ImageColumn = None,
    beams: Beams = None,
    length_penalty: LengthPenalty = None,
    max_length: MaxLength = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    tokenizer: Tokenizer = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Caption images, by a search or by draws; as the model's recipe says without such options.

    Example: beit3 caption --model runs/demo-captioning photos/a.jpg
    """
    section = model_section(model, tokenizer) | decoding_section(
        num_beams=beams,
        length_penalty=length_penalty,
        max_length=max_length,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    given = inputs_section(images, image_column=image_column)
    apply_model(apply_recipe("caption", section, given, set_), workdir, json_)


def answer(
    model: Model,
    images: Images,
    question: Question = None,
    question_column: QuestionColumn = None,
    image_column: ImageColumn = None,
    top: NumBest = 5,
    tokenizer: Tokenizer = None,
    labels: Labels = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Answer a question about each image, or the questions beside the images of a Parquet file.

    Example: beit3 answer --model runs/demo-vqa photos --question "how many squares are there?"
    """
    from orchestration.errors import RecipeError

    if question is not None and question_column is not None:
        raise RecipeError("--question and --question-column exclude each other; give one of them")
    given = inputs_section(
        images, image_column=image_column, text_column=question_column, about_images=True
    )
    given |= {"question": question}
    section = model_section(model, tokenizer, labels) | {"num_best": top}
    apply_model(apply_recipe("answer", section, given, set_), workdir, json_)


def classify(
    model: Model,
    inputs: Inputs = None,
    text: Texts = [],  # noqa: B006
    second_text: SecondTexts = [],  # noqa: B006
    second_image: SecondImages = [],  # noqa: B006
    texts: TextFiles = [],  # noqa: B006
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    second_text_column: SecondTextColumn = None,
    second_image_column: SecondImageColumn = None,
    top: NumBest = 5,
    tokenizer: Tokenizer = None,
    labels: Labels = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Classify images, texts, pairs of texts, or sentences about two images.

    Example: beit3 classify --model runs/demo-imagenet photos --top 3 --json
    """
    given = inputs_section(
        inputs, text, texts, image_column, text_column, second_image,
        about_images=second_image_column is not None,
    )  # fmt: skip
    given |= {"second_texts": list(second_text), "second_text_column": second_text_column}
    given |= {"second_image_column": second_image_column}
    section = model_section(model, tokenizer, labels) | {"num_best": top}
    apply_model(apply_recipe("classify", section, given, set_), workdir, json_)


def detect(
    model: Model,
    images: Images,
    image_column: ImageColumn = None,
    min_score: MinScore = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Find objects in images: classes, scores, boxes and masks.

    Example: beit3 detect --model runs/demo-detection photos --min-score 0.3 --json
    """
    given = inputs_section(images, image_column=image_column)
    section = model_section(model) | ({} if min_score is None else {"min_score": min_score})
    apply_model(apply_recipe("detect", section, given, set_), workdir, json_)


def segment(
    model: Model,
    images: Images,
    image_column: ImageColumn = None,
    workdir: WorkdirOrNone = None,
    json_: Json = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Name the class of each pixel of images.

    Example: beit3 segment --model runs/demo-segmentation photos --workdir runs/maps
    """
    given = inputs_section(images, image_column=image_column)
    apply_model(apply_recipe("segment", model_section(model), given, set_), workdir, json_)
