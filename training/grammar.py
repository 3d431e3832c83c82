"""Sentences put together from parts: statements and questions about a key, its kind and its value, by the thousand.

Listed wordings are learned by heart; what carries over to wordings nobody listed is to find key and kind in any order
with anything around them. No part is a phrase of evaluation's wordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


LINKS = _parts(
    "for|of|for|of|at|on|behind|in|near|from|with|under|by|inside|beside|past|about|used by|set by|that belongs to|"
    "given to|taken from|kept in|filed under|noted for|meant for|stored at|printed on|reserved for|known to|sent to|"
    "tied to|that goes with|chosen for|agreed for|which opens|we have for|they use at|on file for"
)
ARE = _parts(
    "is|is|is|was|equals|reads|stays|remains|became|means|must be|should be|will be|has been|is now|turned into|"
    "starts as|is set to|comes to|amounts to|is still|is just|is simply|stands at|looks like|would be|was once|->|=|:"
)
MAKES = _parts("is|was|means|marks|gives|opens|became|stands for|counts as|works as|is used as|is known as|acts as")
HAS = _parts(
    "has|keeps|needs|gets|got|wants|takes|shows|carries|uses|owns|lists|reports|received|requires|bears|prints|"
    "sends|hides|accepts|expects|asked for|was sent|works with|runs on|is sold with|is kept under|answers to|"
    "ends with|starts with|must have|used to have"
)
THE = _parts("the |the |a |this |one |their |our |")
AGENTS = _parts(
    "we|they|I|you|she|he|somebody|nobody|the clerk|my brother|the driver|a visitor|the manual|the old list|the guard|"
    "the script|this file|her letter|the team|a colleague|the label|the log|the first page|the captain|the system"
)
WROTE = _parts(
    "wrote|chose|picked|noted|kept|saved|entered|sent|typed|copied|recorded|reserved|found|used|gave|printed|took|set|"
    "made|read|heard|put|remembered|lost"
)
AS = _parts("as|for|under|like|being")
ABOUT = _parts(
    "for|with|at|on|in|behind|about|inside|regarding|concerning|near|as for|next to|in case of|when it comes to"
)
WHICH = _parts("what|which|what|which|which one|what exactly|which single|what sort of")
ASKS = _parts(
    "give me|show|say|recall|name|find|print|quote|report|output|fetch|spell|copy|get|write down|look for|remind me of|"
    "answer with|return only|go and find|search for|read out|help me find|I need|I want|we need|I forgot"
)
POLITE = _parts("could you name|would you say|may I have|do we know|will you look up|is there|can we see|have you got")
DOES = _parts("does|did|will|should|must|would|can")
NEEDS = _parts("need|keep|get|show|carry|use|take|require|want|own|bear|print|have|expect|accept|start with")
BLANK = _parts("what|which|...|____|?|which one|[blank]")
MANY = _parts("all |every one of |each of |both or all |the |these |the whole list of |")
VARIABLES = _parts("variables|names|variable|labels|symbols|which names|which variables|what|items|every name")
ENDS = _parts(".|.|.||;|!")


def fill(words: Sequence[str], random: Random, most: int = 3) -> str:
    """Nought to `most` words of the library's text, a blank before each."""
    return "".join(f" {word}" for word in random.choices(words, k=random.choice((0, random.randint(0, most)))))


def _the(random: Random) -> str:
    """The kind of the key, as a phrase."""
    the, link = random.choice(THE), random.choice(LINKS)
    return f"{the}{{kind}} {link} {{key}}" if random.random() < 0.85 else "{key}'s {kind}"


def statement(words: Sequence[str], random: Random) -> str:
    """A sentence that gives {value} as the {kind} of {key}."""
    the, has, wrote = random.choice(THE), random.choice(HAS), f"{random.choice(AGENTS)} {random.choice(WROTE)}"
    about = random.choice(ABOUT) + " {key}" + random.choice(("", ",", ":"))
    said = random.choice(
        (
            f"{_the(random)} {random.choice(ARE)} {{value}}",
            f"{_the(random)}{fill(words, random)} {random.choice(ARE)}{fill(words, random)} {{value}}",
            f"{{value}} {random.choice(MAKES)} {_the(random)}",
            f"{{key}} {has} {the}{{kind}} {{value}}",
            f"{{key}}{fill(words, random)} {has} {the}{{kind}}{fill(words, random)} {{value}}",
            f"{{key}} {has} {{value}} {random.choice(AS)} {the}{{kind}}",
            f"{about} {the}{{kind}} {random.choice(ARE)} {{value}}",
            f"{wrote} {{value}} {random.choice(AS)} {_the(random)}",
            f"{wrote} {the}{{kind}} {{value}} {random.choice(LINKS)} {{key}}",
            f"{wrote} {{key}}{fill(words, random)} {the}{{kind}} {{value}}",
        )
    )
    if random.random() < 0.35:
        side = random.choice(("when", "because", "while", "if", "and", "but", "since", "before", "after", "so"))
        more = f"{side}{fill(words, random, 5)}"
        said = f"{more}, {said}" if random.random() < 0.5 else f"{said}{random.choice(('', ','))} {more}"
    return said + random.choice(ENDS)


def question(words: Sequence[str], random: Random) -> str:
    """A question or an order about {kind} and {key}."""
    which, verb, does = random.choice(WHICH), random.choice(NEEDS), random.choice(DOES)
    about, the = random.choice(ABOUT), random.choice(THE)
    asked = random.choice(
        (
            f"{which} {random.choice(ARE[:16])} {_the(random)}?",
            f"{which} {{kind}} {does} {{key}} {verb}?",
            f"{{key}} {random.choice(HAS)} {which} {{kind}}?",
            f"{random.choice(ASKS)} {_the(random)}{random.choice('.?!')}",
            f"{random.choice(POLITE)} {_the(random)}?",
            f"{about} {{key}}{random.choice(('', ',', ':'))} {which} {random.choice(ARE[:6])} {the}{{kind}}?",
            f"{_the(random)} {random.choice(ARE[:16])} {random.choice(BLANK)}?",
            f"{_the(random)}?",
            f"{{key}}{random.choice((',', ':', ' -', ''))} {{kind}}?",
            statement(words, random).replace("{value}", random.choice(BLANK)),
        )
    )
    return f"{asked[:-1]}{fill(words, random)}?" if asked.endswith("?") and random.random() < 0.4 else asked


def several_values(words: Sequence[str], random: Random) -> str:
    """A question for all {kinds} of {key}."""
    many, link = random.choice(MANY), random.choice(LINKS)
    return random.choice(
        (
            f"{random.choice(ASKS)} {many}{{kinds}} {link} {{key}}.",
            f"{random.choice(WHICH)} {{kinds}} {random.choice(DOES)} {{key}} {random.choice(NEEDS)}?",
            f"{many}{{kinds}} {link} {{key}}{fill(words, random)}?",
            f"{random.choice(ABOUT)} {{key}}, {random.choice(ASKS)} {many}{{kinds}}.",
            f"{{key}}: {many}{{kinds}}?",
        )
    )


def several_keys(words: Sequence[str], random: Random) -> str:
    """A question for the {kinds} of several {keys}, in their order."""
    link = random.choice(LINKS)
    return random.choice(
        (
            f"{random.choice(ASKS)} the {{kinds}} {link} {{keys}}.",
            f"{random.choice(WHICH)} {{kinds}} {random.choice(DOES)} {{keys}} {random.choice(NEEDS)}?",
            f"{{keys}}{random.choice((':', ',', ' -'))} {{kinds}}?",
            f"{random.choice(POLITE)} the {{kinds}} {link} {{keys}}{fill(words, random)}?",
            f"{random.choice(ABOUT)} {{keys}}, {random.choice(WHICH)} {{kinds}}?",
        )
    )


def count(words: Sequence[str], random: Random) -> str:
    """A question for how many {kinds} there are."""
    total = random.choice(("total", "tally", "count", "sum", "quantity", "amount", "frequency"))
    there = random.choice(("are there", "stand here", "occur", "do we have", "come up", "were named", "can you see"))
    said = random.choice(("given", "named", "said", "mentioned", "written", "repeated", "stated", "noted", "set"))
    return random.choice(
        (
            f"how many {{kinds}} {there}{fill(words, random)}?",
            f"{random.choice(ASKS)} how many {{kinds}} {there}.",
            f"{random.choice(ASKS)} the {total} of {{kinds}}{fill(words, random)}.",
            f"the {total} of {random.choice(MANY)}{{kinds}}?",
            f"{{kinds}}{random.choice((':', ',', ' -'))} how many?",
            f"{{kind}} {total}?",
            f"how many times {random.choice(('is', 'was', 'gets'))} a {{kind}} {said}{fill(words, random)}?",
        )
    )


def listing(words: Sequence[str], random: Random) -> str:
    """A question for everything that has a {kind}."""
    who = random.choice(
        ("who", "what", "which", "which of them", "who or which", "what else", "which keys", "which names")
    )
    all_of = random.choice(
        ("all", "everything", "each one", "every entry", "whatever", "everyone", "the keys", "the names")
    )
    has, the = random.choice(HAS), random.choice(("a ", "the ", "some ", "any ", "one "))
    return random.choice(
        (
            f"{who} {has} {the}{{kind}}{fill(words, random)}?",
            f"{random.choice(ASKS)} {all_of} that {has} {the}{{kind}}.",
            f"{random.choice(ASKS)} {all_of} with {the}{{kind}}{fill(words, random)}.",
            f"{random.choice(ABOUT)} {{kinds}}{random.choice(('', ',', ':'))} {who} {has} one?",
            f"{{kind}}{random.choice((':', ',', ' -'))} {who}?",
            f"to what {random.choice(('does', 'did'))} {the}{{kind}} {random.choice(('go', 'belong', 'apply'))}?",
        )
    )


def chain(words: Sequence[str], random: Random) -> tuple[str, str]:
    """How a variable is set to a value and to another variable."""
    before, after = fill(words, random, 2).strip(), random.choice(("", "", ";", ".", " end"))
    joint = random.choice(
        ("=", ":=", "<-", "is", "equals", "gets", ":", "takes", "becomes", "as", "to", "means", "==", "from", "copies")
    )
    head = f"{before} {{name}} {joint}".strip()
    other = f"{random.choice(words)} {{other}}" if random.random() < 0.2 else "{other}"
    return f"{head} {{value}}{after}", f"{head} {other}{after}"


def chain_question(words: Sequence[str], random: Random) -> str:
    """A question for the variables that have a {value}."""
    which = random.choice(VARIABLES)
    return random.choice(
        (
            f"{random.choice(ASKS)} {which} {random.choice(LINKS)} {{value}}.",
            f"{which} {random.choice(HAS)} {{value}}?",
            f"{which}{fill(words, random)} {{value}}{fill(words, random)}?",
            f"{{value}}: {which}?",
            f"{{value}} {random.choice(MAKES)} {which}?",
        )
    )


def quote_question(words: Sequence[str], random: Random) -> str:
    """An order to go on from a {quote}."""
    before, after = fill(words, random, 4).strip(), fill(words, random, 3)
    start = random.choice((before, before, f"{random.choice(ASKS)}{fill(words, random)}", random.choice(WHICH))).strip()
    quoted = random.choice(('"{quote}"', '"{quote}"', '"{quote}"', "'{quote}'", "{quote} ...", "<{quote}>"))
    return f"{start} {quoted}{after}{random.choice(('.', '?', '', ':'))}".strip()
