// Pairs of sums over words, element by element. Those of RUN terms are summed first, then the runs, with what rounding
// leaves of them: see sums.wgsl.
// #import storage/word_x4
// #import arithmetic/rounded_word

const RUN: u32 = 16u;

fn ends_run(term: u32) -> bool {
    return term % RUN == RUN - 1u;
}

struct Sums {
    a: Word,
    b: Word,
}

fn no_sums() -> Sums {
    return Sums(Word(0.0), Word(0.0));
}

// Sums of runs, and what rounding left of them.
struct Totals {
    high: Sums,
    low: Sums,
}

fn no_totals() -> Totals {
    return Totals(no_sums(), no_sums());
}

// What the rounded sum of a and b lacks.
fn left_of_sum(a: Word, b: Word, sum: Word) -> Word {
    let of_b = rounded_word(sum - a);
    let of_a = rounded_word(sum - of_b);
    return rounded_word(a - of_a) + rounded_word(b - of_b);
}

fn and_run(totals: Totals, run: Sums) -> Totals {
    let a = rounded_word(totals.high.a + run.a);
    let b = rounded_word(totals.high.b + run.b);
    return Totals(Sums(a, b), Sums(
        totals.low.a + left_of_sum(totals.high.a, run.a, a),
        totals.low.b + left_of_sum(totals.high.b, run.b, b),
    ));
}

// Beside an Inf there is nothing left: the difference of two.
fn both_parts(high: Word, low: Word) -> Word {
    let exponent = bitcast<Bits>(high) & Bits(0x7f800000u);
    return select(high + low, high, exponent == Bits(0x7f800000u));
}

fn totals_of(totals: Totals) -> Sums {
    return Sums(both_parts(totals.high.a, totals.low.a), both_parts(totals.high.b, totals.low.b));
}
