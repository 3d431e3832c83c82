"""What is stated in the haystack and asked for: needles in several forms, and variable chains."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from farspan.tasks._facts import (
    Chain,
    Fact,
    Language,
    make_chains,
    question_about,
    question_about_chain,
    question_about_several,
    state_chains,
)
from farspan.tasks._vocabulary import distinct_keys
from farspan.tasks._wording import BARE_COMPLETIONS, Wording, plural
from training.document import Topic, Turn


def make_facts(
    random: Random, language: Language, keys: int, *, values: int | None = None, kinds: int | None = None
) -> list[Fact]:
    """Facts about `keys` keys, mostly of one kind with one value each; `values` and `kinds` fix these numbers."""
    vocabulary, words = language.vocabulary, language.words
    make_key = vocabulary.keys[vocabulary.key_type(random)][0]
    value_type = vocabulary.value_type(random)
    wanted = kinds or (1 if random.random() < 0.65 else random.randint(2, 5))
    own = random.sample(language.wording.kinds, min(wanted, len(language.wording.kinds)))
    several = values is None and random.random() < 0.2
    crossed = len(own) > 1 and random.random() < 0.4
    names = distinct_keys(make_key, keys, random, words, similar=random.random() < 0.2)
    facts: list[Fact] = []
    taken: set[str] = set()
    for index, key in enumerate(names):
        of_kind = own[index % len(own)]
        if crossed and facts and random.random() < 0.5:  # an earlier key again, under another kind
            other = random.choice(facts)
            if all((fact.kind, fact.key) != (of_kind, other.key) for fact in facts):
                key = other.key
        count = values or (random.choice((1, 1, 2, 2, 3, 4)) if several else 1)
        chosen: list[str] = []
        while len(chosen) < count:
            mixed = random.random() < 0.05
            kind_of_value = vocabulary.value_type(random) if mixed else value_type
            value = vocabulary.values[kind_of_value][0](random, words)
            if value not in taken:
                taken.add(value)
                chosen.append(value)
        facts.append(Fact(of_kind, key, tuple(chosen)))
    return facts


def state(random: Random, wording: Wording, facts: Sequence[Fact]) -> tuple[tuple[str, ...], list[Fact]]:
    """One statement per value in random order, a fact's own values in their order; mostly one wording for all.

    Returns the statements, and the facts in the order in which they are first stated.
    """
    order = [index for index, fact in enumerate(facts) for _ in fact.values]
    random.shuffle(order)
    left = {index: iter(fact.values) for index, fact in enumerate(facts)}
    common = random.choice(wording.statements)
    sameness = random.choice((1.0, 0.7, 0.0))
    statements: list[str] = []
    for index in order:
        template = common if random.random() < sameness else random.choice(wording.statements)
        fact = facts[index]
        text = template.format(kind=fact.kind, kinds=plural(fact.kind), key=fact.key, value=next(left[index]))
        as_it_is = template.startswith(("{key}", "{value}")) or random.random() < 0.2
        statements.append(text if as_it_is else text[0].upper() + text[1:])
    return tuple(statements), [facts[index] for index in dict.fromkeys(order)]


def ask(random: Random, wording: Wording, fact: Fact) -> Turn:
    """The plain question about one fact; all values when it has several."""
    several = len(fact.values) > 1 or random.random() < 0.04
    kind = "values" if len(fact.values) > 1 else "needle"
    return Turn.ask(question_about(random, wording, fact, several=several), fact.values, kind)


def ask_several(random: Random, wording: Wording, facts: Sequence[Fact]) -> Turn:
    """One question about several keys of one kind; every value after its key, in the order asked.

    Values alone would ask of a small model to count how many it has said, to find the next key in the question and to
    look it up, all in one token.
    """
    question = question_about_several(random, wording, facts)
    return Turn.ask(question, [fact.values[0] for fact in facts], "keys", keys=[fact.key for fact in facts])


def ask_bare(random: Random, fact: Fact) -> Turn:
    """A prefix of the answer to go on from, without end-of-sequence."""
    prompt = "\n" + random.choice(BARE_COMPLETIONS).format(kind=fact.kind, key=fact.key)
    answer = f" {fact.values[0]}."
    return Turn(prompt=prompt, answer=answer, values=fact.values[:1], starts=(1,), stop=False, kind="bare")


def ask_key(random: Random, wording: Wording, fact: Fact) -> Turn:
    """Which key has this value."""
    question = random.choice(wording.reverse_questions).format(kind=fact.kind, value=fact.values[0])
    return Turn.ask(question, [fact.key], "reverse")


def overview(random: Random, wording: Wording, facts: Sequence[Fact], *, counting: bool) -> Turn | None:
    """Counting or listing what there is of one kind, while it is little."""
    kind = random.choice(facts).kind
    own = [fact for fact in facts if fact.kind == kind]
    stated = sum(len(fact.values) for fact in own)
    if counting and stated <= 9:
        template = random.choice(wording.counts)
        return Turn.ask(template.format(kind=kind, kinds=plural(kind)), [str(stated)], "count")
    if not counting and len(own) <= 8 and stated == len(own):
        template = random.choice(wording.listings)
        return Turn.ask(template.format(kind=kind, kinds=plural(kind)), [fact.key for fact in own], "list")
    return None


def needles(random: Random, language: Language, keys: int, turns: int) -> Topic:
    """Key → value facts and up to `turns` questions, most of them about one value."""
    wording = language.wording
    statements, facts = state(random, wording, make_facts(random, language, keys))
    asked = [
        ask_key(random, wording, fact)
        if random.random() < 0.04 and len(fact.values) == 1
        else ask(random, wording, fact)
        for fact in random.sample(facts, min(turns, len(facts)))
    ]
    return Topic(statements=statements, turns=tuple(asked))


def bare_needles(random: Random, language: Language, keys: int, turns: int) -> Topic:
    """Facts with one value each, asked for by the beginning of an answer."""
    statements, facts = state(random, language.wording, make_facts(random, language, keys, values=1))
    chosen = random.sample(facts, min(turns, len(facts)))
    return Topic(statements=statements, turns=tuple(ask_bare(random, fact) for fact in chosen))


def many_values(random: Random, language: Language, keys: int, turns: int) -> Topic:
    """Keys with two to four values each, in all; every key is asked for all of its values."""
    each = random.choice((2, 2, 2, 3, 3, 4))
    made = make_facts(random, language, max(1, keys // each), values=each)
    statements, facts = state(random, language.wording, made)
    chosen = random.sample(facts, min(turns, len(facts)))
    return Topic(statements=statements, turns=tuple(ask(random, language.wording, fact) for fact in chosen))


def many_keys(random: Random, language: Language, keys: int, turns: int) -> Topic:
    """Facts of one kind, asked for two to four at a time."""
    made = make_facts(random, language, max(2, keys), values=1, kinds=random.choice((1, 1, 2)))
    statements, facts = state(random, language.wording, made)
    asked: list[Turn] = []
    for _ in range(turns):
        kind = random.choice(facts).kind
        same = [fact for fact in facts if fact.kind == kind]
        if len(same) > 1:
            few = random.sample(same, min(len(same), random.choice((2, 2, 3, 3, 4))))
            asked.append(ask_several(random, language.wording, few))
    return Topic(statements=statements, turns=tuple(asked))


def reverses(random: Random, language: Language, keys: int, turns: int) -> Topic:
    """Facts asked for by their values: what every step of a chain is."""
    statements, facts = state(random, language.wording, make_facts(random, language, keys, values=1))
    chosen = random.sample(facts, min(turns, len(facts)))
    return Topic(statements=statements, turns=tuple(ask_key(random, language.wording, fact) for fact in chosen))


def overviews(random: Random, language: Language, keys: int, turns: int) -> Topic:
    """A few facts of several kinds, counted and listed by kind."""
    kinds = random.randint(1, 3)
    made = make_facts(random, language, max(2, min(keys, 6 * kinds)), values=1, kinds=kinds)
    statements, facts = state(random, language.wording, made)
    tries = (overview(random, language.wording, facts, counting=random.random() < 0.35) for _ in range(turns))
    return Topic(statements=statements, turns=tuple(turn for turn in tries if turn))


def ask_chain(random: Random, wording: Wording, chain: Chain) -> Turn:
    return Turn.ask(question_about_chain(random, wording, chain), chain.names, "chain")


def chains(random: Random, language: Language, lines: int, turns: int) -> Topic:
    """Variable chains of 0 to 5 hops, `lines` assignments in all, asked for by value, some variables also by name."""
    longest = random.choice((0, 1, 1, 2, 2, 3, 4, 5))
    hops: list[int] = []
    while not hops or sum(hops) + len(hops) + longest < lines:
        hops.append(longest if random.random() < 0.7 else random.randint(0, longest))
    made = make_chains(random, hops)
    asked = [ask_chain(random, language.wording, chain) for chain in random.sample(made, min(turns, len(made)))]
    for chain in made:
        if random.random() < 0.2 and len(asked) < turns:
            template = random.choice(language.wording.value_questions)
            name = random.choice(chain.names[:3])
            asked.append(Turn.ask(template.format(name=name), [chain.value], "variable"))
    random.shuffle(asked)
    return Topic(statements=state_chains(random, language.wording, made), turns=tuple(asked))


def join(topics: Sequence[Topic], random: Random) -> Topic:
    """Topics in one document: statements interleaved in their orders, turns shuffled."""
    order = [index for index, topic in enumerate(topics) for _ in topic.statements]
    random.shuffle(order)
    left = [iter(topic.statements) for topic in topics]
    turns = [turn for topic in topics for turn in topic.turns]
    random.shuffle(turns)
    late = [topic.late for topic in topics if topic.late]
    return Topic(
        statements=tuple(next(left[index]) for index in order),
        turns=tuple(turns),
        late=(lambda document: [turn for each in late for turn in each(document)]) if late else None,
    )
