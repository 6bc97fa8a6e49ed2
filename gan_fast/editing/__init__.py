"""Control of a trained StyleGAN2 generator: directions to move its styles in, pictures found again, styles mixed.

directions = edit_directions(generator, layers=range(0, 4))
images = generator.synthesis(move(ws, directions.vectors[0], 3.0, layers=range(0, 4)), noise_mode="const")
"""

from gan_fast.editing.directions import Directions, edit_directions, move
from gan_fast.editing.interpolation import walk
from gan_fast.editing.mixing import style_mix
from gan_fast.editing.projection import Projection, project, pyramid_distance

__all__ = ["Directions", "Projection", "edit_directions", "move", "project", "pyramid_distance", "style_mix", "walk"]
