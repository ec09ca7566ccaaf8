"""Fine-tuning: from a pretrained network and a task's files to a model and its score.

- ``task.py``: what a task is; ``tasks/`` has a file for each, ``registry.py`` lists them.
  ``class_scores.py``, ``class_names.py``, ``answer_lists.py``: what several of them use.
- ``start.py``: the stage that fits given weights to the task's input size. ``start_params.py`` has
  its parameters, ``start_source.py`` finds the weights, ``start_weights.py`` fits them.
- ``formats/``: the files that examples are read from; ``prepare.py`` is the stage that reads them.
  ``prepared_rows.py`` makes a row of an example; ``curated_pairs.py`` finds the pairs of a
  pretraining.
- ``object_views.py``, ``coco_rows.py``, ``object_score.py``: images with boxes and masks, COCO's
  form of them and their score; ``detection_params.py``: parameters of detection.
- ``label_map_views.py``, ``label_map_score.py``, ``label_map_files.py``: crops of images with label
  maps, their score and the files of a submission; ``segmentation_params.py``: parameters of
  segmentation. ``csv_tables.py``: tables of the classes of both.
- ``labels.py``: the stage that collects the labels to choose from.
- ``params.py``: parameters of the training and of predictions.
- ``batch.py``, ``texts.py``, ``example_builder.py``, ``feed.py``: examples → the network's input;
  ``views.py``, ``imagenet_augment.py``: the pixels of their images.
- ``finetune.py``, ``finetune_task.py``, ``curve.py``: the stage that trains, its task in the one
  training loop, and the figure of its curve. ``expected_bytes.py``: the size of its weights.
- ``predict.py``, ``predicting.py``, ``score.py``: predictions for a split, and its metrics.
  ``caption_params.py``, ``caption_metrics.py``, ``caption_java.py``: what captioning uses;
  ``nearest_texts.py``: a baseline.
- ``export.py``, ``model_card.py``, ``task_file.py``: the stage that writes a folder for this
  project and others; ``check_export.py`` compares other programs with it.
"""
