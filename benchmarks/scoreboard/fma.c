/* Peak of float32 fused multiply-adds in the processor's widest vectors: GFLOP/s of so many threads
   as the first argument says, each with 12 independent chains in registers. */
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
typedef __m512 vector;
#define WIDTH 16
#define SET(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define NAME "AVX-512"
#elif defined(__FMA__)
typedef __m256 vector;
#define WIDTH 8
#define SET(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define NAME "AVX2"
#else
#error "no fused multiply-add on this processor"
#endif
#define CHAINS 12
#define ROUNDS 800000000L

static volatile float sink;

static void *work(void *unused) {
  vector sums[CHAINS], a = SET(0.999999f), b = SET(1e-7f);
  for (int i = 0; i < CHAINS; i++) sums[i] = SET((float)i);
  for (long round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; i++) sums[i] = FMA(sums[i], a, b);
  }
  float total = 0;
  for (int i = 0; i < CHAINS; i++) total += ((float *)&sums[i])[0];
  sink = total;
  return unused;
}

int main(int count, char **arguments) {
  int threads = count > 1 ? atoi(arguments[1]) : 1;
  pthread_t *started = malloc(threads * sizeof *started);
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < threads; i++) pthread_create(&started[i], 0, work, 0);
  for (int i = 0; i < threads; i++) pthread_join(started[i], 0);
  clock_gettime(CLOCK_MONOTONIC, &end);
  double seconds = (end.tv_sec - begin.tv_sec) + (end.tv_nsec - begin.tv_nsec) * 1e-9;
  printf("%s %.1f\n", NAME, 2.0 * WIDTH * CHAINS * ROUNDS * threads / seconds / 1e9);
  return 0;
}
