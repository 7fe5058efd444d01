// Two sums of each part of each row. LANES invocations own an item, a part of a row.
// terms(word, keep, p), which yields the two terms of a word's elements that are kept, prepare(channel), and
// gather(index, sum), the sum over an item's lanes, are put before this text.

fn keep_row(word: u32, row: u32) -> vec4<bool> {
    let begin = row * shape.len;
    let element = vec4(4u * word) + vec4(0u, 1u, 2u, 3u);
    return (element >= vec4(begin)) & (element < vec4(begin + shape.len));
}

fn total(t: Terms) -> vec2<f32> {
    return vec2(dot(t.first, vec4(1.0)), dot(t.second, vec4(1.0)));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn reduce(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let at = place(group, groups, index);
    let row = at.x / shape.parts;
    let part = at.x % shape.parts;
    var sum = vec2(0.0);
    if row < shape.rows {
        let p = prepare(row % shape.channels);
        let whole = whole_words(row);
        let start = whole.x + part * shape.words;
        let to = min(start + shape.words, whole.y);
        var first = vec4(0.0);
        var second = vec4(0.0);
        for (var word = start + at.y; word < to; word += LANES) {
            let t = terms(word, vec4(true), p);
            first += t.first;
            second += t.second;
        }
        sum = total(Terms(first, second));
        // The words that the row shares with its neighbours.
        let begin = row * shape.len;
        let end = begin + shape.len;
        if part == 0u && at.y == 0u {
            if begin % 4u != 0u {
                sum += total(terms(begin / 4u, keep_row(begin / 4u, row), p));
            }
            if end % 4u != 0u && (begin % 4u == 0u || end / 4u != begin / 4u) {
                sum += total(terms(end / 4u, keep_row(end / 4u, row), p));
            }
        }
    }
    let all = gather(index, sum);
    if at.y == 0u && row < shape.rows {
        sums[at.x] = all;
    }
}
