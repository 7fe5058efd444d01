// Writes a tensor, element by element. LANES invocations own an item: those words of a part of a row that
// begin in it.
// prepare(channel) and apply(word, p), the value of a word, are put before this text.

@compute @workgroup_size(WORKGROUP_SIZE)
fn map(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let at = place(group, groups, index);
    let row = at.x / shape.parts;
    let part = at.x % shape.parts;
    if row < shape.rows {
        let p = prepare(row % shape.channels);
        let whole = whole_words(row);
        let start = whole.x + part * shape.words;
        let to = min(start + shape.words, whole.y);
        for (var word = start + at.y; word < to; word += LANES) {
            result[word] = apply(word, p);
        }
        // The word that begins in this row and ends in another, or behind the last one.
        let end = (row + 1u) * shape.len;
        if part == 0u && at.y == 0u && end % 4u != 0u && end / 4u >= whole.x {
            let word = end / 4u;
            var value = vec4(0.0);
            for (var i = 0u; i < 4u; i++) {
                let owner = min((4u * word + i) / shape.len, shape.rows - 1u);
                let one = apply(word, prepare(owner % shape.channels));
                value[i] = one[i];
            }
            result[word] = value;
        }
    }
}
