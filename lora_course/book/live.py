r"""The live form of `explore`: real ipywidgets sliders that call the reader's draw."""

from html import escape

import ipywidgets

from .grid import texts
from .sheet import with_style


def live(picture):
    r"""Return the ipywidgets box of an `Explore`: its picture, a slider for each axis, a reset button.

    It uses only what ipywidgets 7.7.1 has (Colab's). If draw fails where a slider is moved to, the box shows the
    error and stays alive.
    """
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=list(zip(texts(values), values, strict=True)),
            value=picture.start[name],
            description=picture.labels[name],
            style={"description_width": "initial"},
        )
        for name, values in picture.axes.items()
    }
    shown = ipywidgets.HTML()
    button = ipywidgets.Button(description="Reset")

    def show(_=None):
        point = {name: slider.value for name, slider in sliders.items()}
        try:
            words = escape(picture.words(**point), quote=False)
            block = f'{picture.stage(point)}<p class="lc-say" aria-live="polite">{words}</p>'
        except RuntimeError as error:
            block = f'<pre class="lc-error" role="alert">{escape(str(error), quote=False)}</pre>'
        caption = f"<figcaption>{escape(picture.caption, quote=False)}</figcaption>"
        shown.value = with_style(f'<figure class="lc-explore">{block}{caption}</figure>', "lora_course.css")

    def reset(_):
        for name, slider in sliders.items():
            slider.value = picture.start[name]

    for slider in sliders.values():
        slider.observe(show, "value")
    button.on_click(reset)
    show()
    return ipywidgets.VBox([shown, *sliders.values(), button])
