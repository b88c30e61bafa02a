"""The two words in the host name of a temp env, and the label that they make (`spec.md` 13).

`{app}-{kind}-{word}-{word}` is the first label of the host name. The temp envs of one app and kind are numbered from 0, and each
number has a pair of words of its own: the numbers walk through all pairs in an order that looks arbitrary and never repeats. So
no label is given twice until all pairs have been, after which a number follows the words. A unique index holds it too.

The words name colours, weather, materials, plants, tools, places and the like. No body, person, people, faith, illness, food for
jokes, or beast that is a byword stands here, so that no pair means anything that somebody would not want in an address.
"""

from __future__ import annotations

import hashlib
import re
from math import gcd
from typing import Final

from conman.domain.app import slug
from conman.domain.temp_env import TempEnvKind

LONGEST_APP_PART: Final = 20
"""How much of an app's name goes into a label (`spec.md` 13)."""

_FIRST = """
able acoustic active adept agile airy amber ample ancient annual apt aqua arctic ardent artful astral atomic autumn avid
awake azure balanced basic beaming beige benign best blithe blue bold bonny brave breezy bright brisk broad bronze buoyant
bustling busy calm candid capable careful caring central certain charming cheery chief chilly chosen chromatic civic civil
classic clean clear clever close cloudy coastal cobalt compact complete constant cool copper coral cordial cosmic cosy
cozy crafty creative crimson crisp cubic curious current curved custom daily dapper daring dashing dawning decent deft
denim dewy digital diligent direct distant dotted double dreamy driven durable dusky dutiful eager early earnest earthy
eastern ebony elated electric elegant eminent emerald endless epic equal esteemed eternal ethical evening even evident
exact excellent expert fabled factual fair faithful famous fancy festive fine first fitting fleet floral fluent flying
focal formal fortunate frank free fresh friendly frosty frugal future gallant general generous genial gentle genuine
gifted glad gleaming global glowing good graceful gracious grand grateful great green handy happy hardy harmonic hasty
hearty helpful heroic hidden hollow honest hopeful humble icy ideal immense indigo inland inner inventive ivory jade
jaunty jolly jovial joyful jubilant keen kind lasting lavender lawful leafy learned level light likely linear little
lively local lofty logical loyal lucid lucky lunar magenta magnetic main major marine maroon mellow merry metallic mighty
mild mindful misty mobile modern modest morning moving musical mutual natural neat nimble noble nordic northern notable
novel oaken ochre open optimal orange orderly organic original outer pastel patient peaceful perfect placid plain pleasant
plucky poetic polar polished polite popular precise premium pretty prime proper proud prudent pure purple quaint quick
quiet radiant rapid rare ready real refined regal regular reliable resolute rich robust rosy round royal ruby rural russet
rustic sage sandy sapphire satin scarlet scenic secure select serene sharp shining shiny silent silken silver simple
sincere sleek smart smooth snowy social solar solid sonic southern spare sparkling speedy spry square stable starry steady
stellar still stoic striped subtle summer sunlit sunny super superb sure swift tactful tall tame tangible teal
thankful thorough tidal tidy timely topaz tranquil trim true trusty tuneful unique united upbeat urban useful valiant
valid varied vast velvet verbal vernal viable vibrant vigilant vintage violet vital vivid warm wavy western whole winning
winter wise witty wooden woven zesty
"""
ADJECTIVES: Final = tuple(_FIRST.split())
"""Words that come first; each 3 to 9 letters."""

_SECOND = """
acorn acre adobe agate alcove alder almanac alpine amulet anchor anthem anvil apple apricot arbor arcade arch archive
arrow aspen aster atlas atoll atrium aurora avenue axle badge bamboo banjo banner barley barn basalt basil basin basket
bay bayou beacon beam bell bench beryl birch biscuit blanket blossom boat bobbin bonfire book borough bottle boulder
bracket bramble branch breeze brick bridge brook bucket buckle bugle cabin cable cactus calendar camera candle canoe
canopy canvas canyon cape caravan cargo carpet cart cascade castle cavern cedar cello chalk channel chapter charm chart
chestnut chime chord cinnamon circle citadel citron clay cliff clock cloud clover coast cobble comet compass concert
corner cottage cotton cove crater creek crest crocus crystal cube cymbal cypress daisy dale dawn delta desert dial diamond
dome door dove drift drum dune easel echo eclipse elder elm ember engine estuary falcon farm feather fennel fern ferry
festival field finch fir fjord flame flint floe foam fog forest forge fort fountain freight frost gable galaxy gallery
garden garland garnet gate gazebo geyser ginger glacier glade glen globe gorge granite grove guitar gulf gull hamlet
hammock harbor harp harvest hatch haven hawthorn hazel heath hedge heron hill horizon iceberg inlet iris island isle ivy
jasmine jetty jigsaw journal juniper kayak kelp kettle key keystone kiln kite knoll lagoon lake lamp lantern larch lark
laurel lava lawn leaf ledge lemon lens lever library lilac lily linden linen lobby locket loft loom lotus lumen lupine
lute lyre magnet magnolia mallow mandolin manor mantle map maple marble margin market marsh mast maze meadow medal
meridian mesa meteor mill mint mirror mist moor moraine mosaic moss mountain mural museum myrtle nebula needle nickel
north notebook oak oasis oat oboe ocean octagon olive opal orbit orchard orchid osprey outpost paddle palette panorama
paper parade parasol parcel park parsley passage pasture path pavilion pebble pendulum pepper petal pewter phoenix piano
picnic pier pilot pine pinnacle pixel planet plateau plaza plum pocket pollen pond poplar poppy porch portal prairie prism
pulley pumpkin puzzle pyramid quarry quartz quay quill quilt radar raft railway rainbow rampart ravine reed reef ribbon
ridge rill ring ripple river road robin roof rosemary rosette rowan rudder runway saddle saffron sail sapling satchel
saturn scarf schooner sedge sequoia shelter shingle shore shuttle signal silo sketch skiff sky slate sleigh sonata
song sonnet sparrow spindle spiral spring spruce star station stone street studio summit sundial sunrise sunset swan
sycamore table tapestry teapot tempo terrace theater thicket thimble thistle thunder thyme tide timber toboggan torch
tower trail train trellis tulip tundra tunnel turbine valley vane vault veranda viaduct village vine viola violin vista
volcano voyage wagon walnut water wave weaver wheat wheel whistle willow wind windmill window wharf wren yacht yarrow yew
    zenith zephyr
"""
NOUNS: Final = tuple(_SECOND.split())
"""Words that come second; each 3 to 9 letters."""

PAIRS: Final = len(ADJECTIVES) * len(NOUNS)
_LABEL = re.compile(rf"[a-z0-9][a-z0-9-]*-(?:{'|'.join(TempEnvKind)})-[a-z]+-[a-z]+(?:-[0-9]+)?")


def temp_label(app_name: str, kind: TempEnvKind, number: int) -> str:
    """The label of the `number`-th temp env (from 0) of this app and kind: letters, digits and `-`, 63 characters at most."""
    prefix = label_prefix(app_name, kind)
    first, second = words_of(prefix, number)
    again = number // PAIRS
    return f"{prefix}-{first}-{second}" + (f"-{again + 1}" if again else "")


def is_label(text: str) -> bool:
    """Whether `temp_label` makes such labels; other names, also below a domain of temp envs, are never one's."""
    return _LABEL.fullmatch(text) is not None


def label_prefix(app_name: str, kind: TempEnvKind) -> str:
    """What the labels of one app and kind begin with, and what they are numbered under."""
    return f"{slug(app_name)[:LONGEST_APP_PART].strip('-')}-{kind.value}"


def words_of(prefix: str, number: int) -> tuple[str, str]:
    """The pair of words that belongs to a number: numbers that differ by less than `PAIRS` have different ones.

    The walk begins at a place, and takes steps, that are hashed from the prefix; a step that shares no divisor with the number of
    pairs comes by all of them before it comes by one again.
    """
    digest = hashlib.sha256(prefix.encode()).digest()
    start = int.from_bytes(digest[:8], "big") % PAIRS
    step = _coprime(PAIRS // 3 + int.from_bytes(digest[8:16], "big") % (PAIRS // 3))
    first, second = divmod((start + number * step) % PAIRS, len(NOUNS))
    return ADJECTIVES[first], NOUNS[second]


def _coprime(step: int) -> int:
    while gcd(step, PAIRS) != 1:
        step += 1
    return step
