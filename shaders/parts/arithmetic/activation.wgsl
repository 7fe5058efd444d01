// The second pass: y = activate(norm(x) + residual). Backward computes what entered the activation
// again, by the same expression.
// #import spec
// #import storage/word_x4
// #import arithmetic/rounded_word

// norm(x) from a row's coefficients.
fn normalized(word: Word, pivot: Word, offset: Word, scale: Word, shift: Word) -> Word {
    return (rounded_word(word - pivot) - offset) * scale + shift;
}

const RELU: u32 = 1u;
const SILU: u32 = 2u;

// t <= 0 and no NaN, by bits: compilers that assume that there are none make a maximum of the
// comparison, which swallows them.
fn not_positive(t: Word) -> Mask {
    let bits = bitcast<Bits>(t);
    return (bits - Bits(1u) >= Bits(0x7fffffffu)) & (bits <= Bits(0xff800000u));
}

// 1 / (1 + exp(-t)), and 1 less that; both without overflow or cancellation. (What they are for NaN
// does not matter: they are multiplied by t.)
struct Logistic {
    value: Word,
    rest: Word,
}

fn logistic(t: Word) -> Logistic {
    let e = exp(-abs(t));
    let larger = Word(1.0) / (Word(1.0) + e);
    let smaller = e * larger;
    let negative = t < Word(0.0);
    return Logistic(select(larger, smaller, negative), select(smaller, larger, negative));
}

fn activate(t: Word) -> Word {
    if (ACTIVATION == RELU) {
        return select(t, Word(0.0), not_positive(t));
    }
    if (ACTIVATION == SILU) {
        return t * logistic(t).value;
    }
    return t;
}

// The gradient with respect to t, from the one with respect to activate(t).
fn activation_gradient(t: Word, g: Word) -> Word {
    if (ACTIVATION == RELU) {
        return select(g, Word(0.0), not_positive(t));
    }
    if (ACTIVATION == SILU) {
        let s = logistic(t);
        return g * (s.value * (Word(1.0) + t * s.rest));
    }
    return g;
}
