// The loops of kernels.py on a graphics card; cuda.py compiles and calls them.
//
// Given by the compiler's options: COUNT, the type of a count; BLOCK, the binary logarithm of the
// targets in a block; WIDTH, the lanes that share the words of one row in one block, a power of
// two up to 32; DRAWS, how often each lane draws words; FILTER, the bits that a lane brings to its
// warp's filter of places; THREADS in a group, and GROUPS on a multiprocessor.
//
// Counts are changed by steps on words of 32 bits. A byte that wraps carries into its neighbour,
// but steps modulo 2^32 are a group: opposite steps, in any order, give back every bit.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef COUNT Count;

const u32 ALL = 0xffffffff, PER_WORD = 4 / sizeof(Count), BITS = 8 * sizeof(Count);
const u32 TOP = (1u << BITS) - 1;
// Counts that a group of threads holds in shared memory at a time: 2^16, the largest block.
const int TILE = 16, TILE_VECTORS = (sizeof(Count) << TILE) / 16;
const u32 FILTER_VECTORS = FILTER / 128;

// As cuda.py lays it out: thresholds are `size` words, then 256 numbers of 16 bits say where to
// begin in them; the two halves of the key are given for each round.
struct Law {
    const u64 *thresholds;
    u32 keys[20];
    int size;
    u32 tag;
};

struct Words {
    u32 a, b, c, d;
};

__device__ Words philox(u32 draw, u32 block, u64 source, const Law &law) {
    Words w = {draw, block, u32(source), u32(source >> 32) | law.tag};
#pragma unroll
    for (int r = 0; r < 10; ++r) {
        const u32 left = w.a, right = w.c;
        w.a = __umulhi(right, 0xCD9E8D57u) ^ w.b ^ law.keys[2 * r];
        w.b = right * 0xCD9E8D57u;
        w.c = __umulhi(left, 0xD2511F53u) ^ w.d ^ law.keys[2 * r + 1];
        w.d = left * 0xD2511F53u;
    }
    return w;
}

__device__ void find_places(const Words &w, u32 *places) {
    const u32 words[4] = {w.a, w.b, w.c, w.d};
#pragma unroll
    for (int k = 0; k < 8; ++k)
        places[k] = (k % 2 ? words[k / 2] >> 16 : words[k / 2] & 0xffff) >> (16 - BLOCK);
}

// How many points the row has in the block, from the head word, that of the group's lane 0.
template <int WIDE>
__device__ int points(const Words &w, const Law &law) {
    const u64 head = __shfl_sync(ALL, w.a, 0, WIDE) | u64(__shfl_sync(ALL, w.b, 0, WIDE)) << 32;
    int number = ((const unsigned short *)(law.thresholds + law.size))[head >> 56];
    while (number < law.size && head >= law.thresholds[number]) ++number;
    return number;
}

// Which of the 8 places of draw t are points, if there are so many: draw 0 has the head and 4.
__device__ u32 drawn(int t, int number) {
    return ((1u << min(max(number + 4 - 8 * t, 0), 8)) - 1) & (t ? 0xff : 0xf0);
}

// One row in one block: where this begins in the counts, and how many targets it has; 0: no work.
template <class Place>
struct Piece {
    u64 source;
    u32 block;
    Place start;
    u32 length;
};

template <class Place>
__device__ Piece<Place> broadcast(const Piece<Place> &piece, int lane) {
    return {__shfl_sync(ALL, piece.source, lane), __shfl_sync(ALL, piece.block, lane),
            __shfl_sync(ALL, piece.start, lane), __shfl_sync(ALL, piece.length, lane)};
}

// Where counts are: a tile in shared memory, or all of them in the card's.
struct Tile {
    u32 *words;
};
struct Card {
    u32 *words;
};

// How many steps were made. All lanes step, some by 0: a branch around each would cost more.
template <int N>
__device__ u32 bump(Tile counts, u32 start, const u32 (&places)[N], u32 taken, u32 step) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const u32 at = start + places[k];
        // The shift is taken modulo 32, which picks the count in its word.
        atomicAdd(counts.words + at / PER_WORD,
                  __funnelshift_l(0, taken & 1 << k ? step : 0, at * BITS));
    }
    return __popc(taken);
}

// How many steps left the type. The first that does finds its count right, since no step before
// it carried.
template <int N>
__device__ u32 bump(Card counts, u64 start, const u32 (&places)[N], u32 taken, u32 step) {
    u32 left = 0;
#pragma unroll
    for (int k = 0; k < N; ++k)
        if (taken & 1 << k) {
            const u64 at = start + places[k];
            const u32 shift = u32(at) % PER_WORD * BITS;
            const u32 old = atomicAdd(counts.words + at / PER_WORD, step << shift);
            left += (old >> shift & TOP) == (step == 1 ? TOP : 0);
        }
    return left;
}

// Several points on one target are one edge. A point that finds its bit of a filter clear is the
// first on its target; the few others are compared, one after another, with all that were taken.
template <int WIDE, int DRAWN, class Counts, class Place>
__device__ u32 change(Counts counts, uint4 *filter, const Piece<Place> &piece, u32 step,
                      const Law &law) {
    const int lane = threadIdx.x % 32, t = lane % WIDE, base = lane - t;
    const u32 group = (WIDE == 32 ? ALL : (1u << WIDE % 32) - 1) << base;
    const u32 modulus = FILTER * WIDE;
    const Words head = philox(t, piece.block, piece.source, law);
    u32 places[8 * DRAWN];
    find_places(head, places);
#pragma unroll
    for (int i = 1; i < DRAWN; ++i)
        find_places(philox(t + i * WIDE, piece.block, piece.source, law), places + 8 * i);
    const int number = points<WIDE>(head, law);
    const bool many = number > 8 * WIDE * DRAWN - 4;
    const u32 later = __ballot_sync(ALL, piece.length && many);
    u32 taken = 0, asked = 0;
#pragma unroll
    for (int i = 0; i < DRAWN; ++i) taken |= drawn(t + i * WIDE, many ? 0 : number) << 8 * i;
    if (piece.length < 1u << BLOCK)
#pragma unroll
        for (int k = 0; k < 8 * DRAWN; ++k)
            if (places[k] >= piece.length) taken &= ~(1 << k);

    u32 *own = (u32 *)filter + FILTER / 32 * base;
#pragma unroll
    for (int k = 0; k < 8 * DRAWN; ++k) {
        const u32 bit = __funnelshift_l(0, 1, places[k]);
        const u32 old = atomicOr(own + places[k] % modulus / 32, taken & 1 << k ? bit : 0);
        if (taken & 1 << k && old & bit) asked |= 1 << k;
    }
    taken &= ~asked;
    if (1u << BLOCK > modulus) {
        while (__any_sync(ALL, asked)) {
            const u32 waiting = __ballot_sync(ALL, asked) & group;
            const int turn = waiting ? __ffs(waiting) - 1 : base;
            const u32 next = asked & -asked;
            u32 mine = 0, equal = 0;
#pragma unroll
            for (int k = 0; k < 8 * DRAWN; ++k)
                if (next == 1 << k) mine = places[k];
            const u32 at = __shfl_sync(ALL, mine, turn);
#pragma unroll
            for (int k = 0; k < 8 * DRAWN; ++k)
                if (places[k] == at) equal |= 1 << k;
            const u32 found = __ballot_sync(ALL, equal & taken) & group;
            if (lane == turn) {
                asked ^= next;
                if (!found) taken |= next;
            }
        }
    }
    u32 result = bump(counts, piece.start, places, taken, step);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < FILTER_VECTORS; ++i) filter[32 * i + lane] = make_uint4(0, 0, 0, 0);
    __syncwarp();

    // Rare rows have more points than the group has room for: the whole warp takes them.
    if constexpr (WIDE < 32)
        for (u32 rest = later; rest;) {
            const int first = __ffs(rest) - 1;
            result += change<32, 1>(counts, filter, broadcast(piece, first), step, law);
            rest &= ~(((1u << WIDE) - 1) << first);
        }
    return result;
}

__device__ uint4 *clear_filter(uint4 *memory) {
    for (int i = 0; i < FILTER_VECTORS; ++i)
        memory[THREADS * i + threadIdx.x] = make_uint4(0, 0, 0, 0);
    return memory + threadIdx.x / 32 * 32 * FILTER_VECTORS;
}

__device__ Law local_law(uint4 *memory, const Law &given) {
    u64 *table = (u64 *)memory;
    for (int i = threadIdx.x; i < given.size + 64; i += THREADS) table[i] = given.thresholds[i];
    Law law = given;
    law.thresholds = table;
    return law;
}

__device__ u32 targets(u64 block, u64 n) {
    const u64 begin = block << BLOCK;
    return begin >= n ? 0 : u32(min(n - begin, u64(1) << BLOCK));
}

// A thread's part of the sum of a tile's counts.
__device__ long long sum(const uint4 *tile) {
    u32 total = 0;
    for (int i = threadIdx.x; i < TILE_VECTORS; i += THREADS) {
        const u32 words[4] = {tile[i].x, tile[i].y, tile[i].z, tile[i].w};
        for (u32 word : words)
            total += PER_WORD == 4 ? __dp4a(word, 0x01010101u, 0u) : (word & TOP) + (word >> 16);
    }
    return total;
}

// All rows over one tile of counts, which is read and written once: first the rows that leave.
// A step changes the sum of the counts by one, unless one wraps: then by hundreds more, upwards
// when it fell below 0 and downwards when it grew too large, carries included. So what the sum
// and the number of steps disagree by is not 0 exactly if a count left its type.
extern "C" __global__ void __launch_bounds__(THREADS, GROUPS)
change_tiles(uint4 *counts, u64 n, const u64 *rows, u32 removed, u32 total, const Law given,
             int *left) {
    extern __shared__ uint4 memory[];
    __shared__ u64 off[2];
    uint4 *tile = counts + u64(blockIdx.x) * TILE_VECTORS;
    for (int i = threadIdx.x; i < TILE_VECTORS; i += THREADS) memory[i] = tile[i];
    uint4 *filter = clear_filter(memory + TILE_VECTORS);
    const Law law = local_law(memory + TILE_VECTORS + FILTER_VECTORS * THREADS, given);
    if (threadIdx.x < 2) off[threadIdx.x] = 0;
    __syncthreads();

    const int many = TILE - BLOCK;  // binary logarithm of the blocks in a tile
    const Tile here = {(u32 *)memory};
    const u32 length = u32(min(n - (u64(blockIdx.x) << TILE), u64(1) << TILE));
    for (int up = 0; up < 2; ++up) {
        const u32 first = up ? removed : 0, pieces = ((up ? total : removed) - first) << many;
        if (!pieces) continue;
        long long wrong = -sum(memory);
        u64 steps = 0;
        __syncthreads();
        for (u32 warp = threadIdx.x / 32 * (32 / WIDTH); warp < pieces; warp += THREADS / WIDTH) {
            const u32 at = warp + threadIdx.x % 32 / WIDTH;
            Piece<u32> piece = {};
            if (at < pieces) {
                const u32 inner = at & ((1u << many) - 1);
                piece.source = rows[first + (at >> many)];
                piece.block = (blockIdx.x << many) + inner;
                piece.start = inner << BLOCK;
                piece.length = max(min(int(length - piece.start), 1 << BLOCK), 0);
            }
            steps += change<WIDTH, DRAWS>(here, filter, piece, up ? 1 : ALL, law);
        }
        __syncthreads();
        wrong += sum(memory) + (up ? -steps : steps);
        for (int i = 16; i; i /= 2) wrong += __shfl_down_sync(ALL, wrong, i);
        if (threadIdx.x % 32 == 0) atomicAdd(off + up, u64(wrong));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE_VECTORS; i += THREADS) tile[i] = memory[i];
    if (threadIdx.x < 2 && off[threadIdx.x]) *left = 1;
}

// Few rows: only counts that have an edge are read and written, in the card's memory.
extern "C" __global__ void __launch_bounds__(THREADS)
change_touched(u32 *counts, u64 n, u64 blocks, const u64 *rows, u64 number, u32 step,
               const Law given, int *left) {
    extern __shared__ uint4 memory[];
    uint4 *filter = clear_filter(memory);
    const Law law = local_law(memory + FILTER_VECTORS * THREADS, given);
    __syncthreads();
    u32 bad = 0;
    const u64 begin = (u64(blockIdx.x) * THREADS + threadIdx.x / 32 * 32) / WIDTH;
    for (u64 row = blockIdx.y; row < number; row += gridDim.y)
        for (u64 warp = begin; warp < blocks; warp += u64(gridDim.x) * (THREADS / WIDTH)) {
            const u64 block = warp + threadIdx.x % 32 / WIDTH;
            const Piece<u64> piece = {rows[row], u32(block), block << BLOCK, targets(block, n)};
            bad |= change<WIDTH, DRAWS>(Card{counts}, filter, piece, step, law);
        }
    if (bad) *left = 1;
}

__device__ bool reaches(u32 word, u32 bounds) {
    return PER_WORD == 4 ? __vcmpgeu4(word, bounds) : __vcmpgeu2(word, bounds);
}

// Places of counts that are at least `bound`, in no order; stops soon after more than `most`.
extern "C" __global__ void at_least(const uint4 *counts, u64 n, u32 bound, u64 room, u64 most,
                                    u64 *number, u64 *found) {
    const u32 bounds = bound * (PER_WORD == 4 ? 0x01010101 : 0x00010001);
    const u64 per = 4 * PER_WORD, stride = u64(gridDim.x) * blockDim.x;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i * per < n; i += stride) {
        const uint4 v = counts[i];
        if (!(reaches(v.x, bounds) | reaches(v.y, bounds) | reaches(v.z, bounds) |
              reaches(v.w, bounds)))
            continue;
        if (*(volatile u64 *)number > most) return;
        const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (u32 k = 0; k < 4 * PER_WORD; ++k)
            if ((words[k / PER_WORD] >> k % PER_WORD * BITS & TOP) >= bound && i * per + k < n) {
                const u64 at = atomicAdd(number, 1ull);
                if (at < room) found[at] = i * per + k;
            }
    }
}

// Each lane has its own column of the table, so that lanes with equal counts do not wait.
extern "C" __global__ void histogram(const uint4 *counts, u64 vectors, u64 *total) {
    __shared__ u32 table[256][32];
    for (int i = threadIdx.x; i < 256 * 32; i += blockDim.x) table[i / 32][i % 32] = 0;
    __syncthreads();
    const u64 stride = u64(gridDim.x) * blockDim.x;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < vectors; i += stride) {
        const uint4 v = counts[i];
        const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (u32 k = 0; k < 4 * PER_WORD; ++k) {
            const u32 count = words[k / PER_WORD] >> k % PER_WORD * BITS & TOP;
            if (TOP == 255 || count < 256)
                atomicAdd(&table[count][threadIdx.x % 32], 1u);
            else
                atomicAdd(total + count, 1ull);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x) {
        u64 sum = 0;
        for (int k = 0; k < 32; ++k) sum += table[i][(i + k) % 32];
        if (sum) atomicAdd(total + i, sum);
    }
}

extern "C" __global__ void take(const Count *counts, const u64 *ids, u64 number, u64 *out) {
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < number;
         i += u64(gridDim.x) * blockDim.x)
        out[i] = counts[ids[i]];
}

// A warp for each source and each block that has targets; `first` is where a block's targets begin.
extern "C" __global__ void among(const u64 *sources, const u64 *targets, const u64 *places,
                                 const u64 *first, u64 rows, u64 blocks, u64 wide, const Law law,
                                 u64 *out) {
    const int t = threadIdx.x % 32;
    const u64 warps = u64(gridDim.x) * blockDim.x / 32;
    for (u64 pair = (u64(blockIdx.x) * blockDim.x + threadIdx.x) / 32; pair < rows * blocks;
         pair += warps) {
        const u64 row = pair / blocks, i = pair % blocks;
        const u32 block = u32(targets[first[i]] >> BLOCK);
        const Words words = philox(t, block, sources[row], law);
        u32 held[8];
        find_places(words, held);
        const u32 points_here = drawn(t, points<32>(words, law));
        for (u64 at = first[i]; at < first[i + 1]; ++at) {
            const u32 asked = u32(targets[at]) & ((1u << BLOCK) - 1);
            u32 equal = 0;
#pragma unroll
            for (int k = 0; k < 8; ++k)
                if (held[k] == asked) equal |= 1 << k;
            if (__any_sync(ALL, equal & points_here) && t == 0)
                atomicOr(out + row * wide + places[at] / 64, 1ull << places[at] % 64);
        }
    }
}
