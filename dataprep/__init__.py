"""What a corpus looks like, and how an image or a text is read, fetched and cleaned.

| file | job |
|---|---|
| ``schemas.py`` | Arrow schemas of the datasets that stages exchange |
| ``sources/`` | readers of list files, archives and dumps, one file per source |
| ``tasks/`` | readers of the annotations of downstream tasks |
| ``fetch.py`` | many images at once: retries, redirects, a reason for each failure |
| ``fetch_rules.py``, ``urls.py`` | limits and reasons of fetching; URLs as they are sent |
| ``http_client.py``, ``response_handler.py`` | one guarded request; bounds on what a server sends |
| ``content_encoding.py`` | gzip and deflate, judged by the bytes |
| ``addresses.py``, ``proxies.py`` | private addresses; proxies that the environment names |
| ``robots.py`` | opt-out headers, robots.txt |
| ``host_limiter.py`` | limits per host: open requests, request rate, pauses of dead hosts |
| ``img2dataset_engine.py`` | img2dataset's downloader behind the same results |
| ``images.py`` | the bytes of an image file to the stored JPEG: the rules and the steps |
| ``image_formats.py``, ``decoding.py`` | which format a file has; its size, orientation, profile |
| ``opencv_decoding.py``, ``pillow_decoding.py`` | decoding to RGB |
| ``compositing.py`` | transparency on white, strip by strip |
| ``jpeg_segments.py``, ``png_chunks.py``, ``webp_chunks.py``, ``avif_boxes.py`` | file structure |
| ``color_profiles.py``, ``image_hashes.py`` | conversion to sRGB; what images look like |
| ``image_errors.py``, ``row_errors.py`` | reasons for which an image, or any row, is rejected |
| ``views.py``, ``color_jitter.py`` | crops, flips and color jitter, drawn from the sample's name |
| ``crop_batches.py``, ``crop_process.py`` | crops of many stored images; a process that cuts them |
| ``scale_jitter.py`` | large-scale jitter of an image with its boxes and masks |
| ``labeled_crops.py``, ``photometric.py`` | crops of an image with its label map; its colors |
| ``rand_augment.py``, ``random_erasing.py`` | changes of a crop that fine-tuning draws |
| ``near_duplicates.py`` | pairs of near hashes, and comparison of their images |
| ``text.py``, ``captions.py`` | cleaning of captions and documents; which captions are used |
| ``randomness.py`` | random generators keyed by name |
| ``miniweb/`` | a drawn corpus in the real file formats, with a server and its ground truth |

Everything is a plain function on bytes, arrays and Arrow tables, or a small class that holds open
files or connections. The room imports no Ray, MLflow or torch and no other room, so each part can
be tested and reused without a cluster. Bytes that cannot be read never raise past a reader's
documented errors: they become rejects with a reason.
"""
