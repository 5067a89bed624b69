"""One library a module, and the table of them.

Each module's `cases()` yields comparisons. Each runs in a process of its own: TensorFlow and torch
do not share one here.
"""

#: Module -> the packages whose versions are named.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "captum_attr": ("captum",),
    "zennit_lrp": ("zennit",),
    "grad_cam": ("grad-cam",),
    "shap_values": ("shap",),
    "lime_weights": ("lime",),
    "xplique_attributions": ("xplique",),
    "tf_keras_vis_maps": ("tf-keras-vis",),
}
