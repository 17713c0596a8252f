/* Random numbers without a call for each: ChaCha20 (RFC 8439) with its key replaced after every block. */
#include "sdk.h"

#define KEY_WORDS 8u
#define BLOCK_WORDS 16u

static struct generator {
    uint64_t generation[2]; /* of the instance that the key was made in */
    uint32_t key[KEY_WORDS];
    uint32_t block[BLOCK_WORDS];
    uint32_t next; /* in block */
    bool seeded;
} generators[UK_MAX_VCPUS];

static uint32_t rotate(uint32_t word, unsigned bits)
{
    return word << bits | word >> (32 - bits);
}

static void quarter_round(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
    *a += *b;
    *d = rotate(*d ^ *a, 16);
    *c += *d;
    *b = rotate(*b ^ *c, 12);
    *a += *b;
    *d = rotate(*d ^ *a, 8);
    *c += *d;
    *b = rotate(*b ^ *c, 7);
}

void uk_chacha20_block(const uint32_t key[8], const uint32_t counter_and_nonce[4], uint32_t block[16])
{
    static const uint32_t constants[4] = { 0x61707865, 0x3320646E, 0x79622D32, 0x6B206574 };
    uint32_t input[BLOCK_WORDS];
    memcpy(input, constants, sizeof constants);
    memcpy(input + 4, key, KEY_WORDS * sizeof *key);
    memcpy(input + 12, counter_and_nonce, 4 * sizeof *counter_and_nonce);
    memcpy(block, input, sizeof input);
    for (unsigned round = 0; round < 20; round += 2) {
        for (unsigned column = 0; column < 4; column++)
            quarter_round(&block[column], &block[4 + column], &block[8 + column], &block[12 + column]);
        for (unsigned diagonal = 0; diagonal < 4; diagonal++)
            quarter_round(&block[diagonal], &block[4 + (diagonal + 1) % 4], &block[8 + (diagonal + 2) % 4],
                          &block[12 + (diagonal + 3) % 4]);
    }
    for (unsigned i = 0; i < BLOCK_WORDS; i++)
        block[i] += input[i];
}

/* The first half of a block becomes the next key, the rest is handed out: what was drawn cannot be found again. */
static void refill(struct generator *generator)
{
    static const uint32_t zero[4];
    uk_chacha20_block(generator->key, zero, generator->block);
    memcpy(generator->key, generator->block, sizeof generator->key);
    generator->next = KEY_WORDS;
}

static bool is_current(const struct generator *generator)
{
    const volatile uint64_t *id = (const volatile uint64_t *)uk_info()->generation_id;
    return generator->seeded && generator->generation[0] == id[0] && generator->generation[1] == id[1];
}

static void seed(struct generator *generator)
{
    const volatile uint64_t *id = (const volatile uint64_t *)uk_info()->generation_id;
    generator->generation[0] = id[0];
    generator->generation[1] = id[1];
    uk_random(generator->key, sizeof generator->key);
    refill(generator);
    generator->seeded = true;
}

uint64_t uk_random_u64(void)
{
    struct generator *generator = &generators[uk_cpu_index()];
    uint64_t number;
    do {
        if (!is_current(generator))
            seed(generator);
        if (generator->next == BLOCK_WORDS)
            refill(generator);
        uint32_t *words = generator->block + generator->next;
        number = (uint64_t)words[1] << 32 | words[0];
        words[0] = words[1] = 0;
        generator->next += 2;
        /* A snapshot between the first look and here would give this number to every clone. */
    } while (!is_current(generator));
    return number;
}
