"""Size of a small miniature web with every source."""

from dataprep.miniweb.corpora import WebSize

WHOLE_WEB = WebSize(
    seed=3,
    num_cc3m=65,
    num_cc12m=65,
    num_classes=1,
    num_images_per_class=20,
    num_documents=110,
    num_sbu=40,
    num_sbu_json=30,
    num_own=80,
    num_coco=62,
    num_visual_genome=80,
    num_webdataset=60,
    num_wikipedia=210,
    num_openwebtext=60,
    num_books=12,
)
