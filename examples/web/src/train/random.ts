/** Random numbers that a seed makes the same in every language: SplitMix64 (Steele, Lea, Flood 2014). */

const MASK = (1n << 64n) - 1n;

export class SplitMix64 {
  private state: bigint;

  constructor(state: bigint) {
    this.state = state & MASK;
  }

  next(): bigint {
    this.state = (this.state + 0x9e3779b97f4a7c15n) & MASK;
    let z = this.state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
    return z ^ (z >> 31n);
  }

  /** In [0, 1). */
  uniform(): number {
    return Number(this.next() >> 40n) / 2 ** 24;
  }
}

/** The images of an epoch, shuffled. */
export function order(seed: number, epoch: number, length: number): Uint32Array {
  const random = new SplitMix64(BigInt(seed) + BigInt(epoch + 1) * (1n << 32n));
  const indices = Uint32Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = Number(random.next() % BigInt(i + 1));
    [indices[i], indices[j]] = [indices[j] as number, indices[i] as number];
  }
  return indices;
}
