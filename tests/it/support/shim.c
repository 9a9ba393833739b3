#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes written since a throttled sync, and the one device that they go to. */
static long unsynced;
static pthread_mutex_t device = PTHREAD_MUTEX_INITIALIZER;

static void transfer(int kib_per_s) {
    pthread_mutex_lock(&device);
    long bytes = __sync_lock_test_and_set(&unsynced, 0);
    usleep(bytes * 1000000 / (kib_per_s * 1024L));
    pthread_mutex_unlock(&device);
}

/* "hold PART", "throttle KIB_PER_S PART" or "fail PART": what becomes of a sync of a file whose path holds PART.
   One that is held (-1) is asked about again until the order is taken back. */
static int ordered(int fd) {
    char link[64], path[4096], what[32] = "", part[256] = "";
    int kib_per_s = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    FILE *orders = fopen(getenv("SHIM_ORDERS"), "r");
    if (n < 0 || !orders) { if (orders) fclose(orders); return 0; }
    path[n] = 0;
    int read = fscanf(orders, "%31s", what);
    if (read == 1 && !strcmp(what, "throttle")) read += fscanf(orders, "%d %255s", &kib_per_s, part);
    else if (read == 1) read += fscanf(orders, "%255s", part);
    fclose(orders);
    if (read < 2 || !strstr(path, part)) return 0;
    if (kib_per_s) { transfer(kib_per_s); return 0; }
    if (!strcmp(what, "hold")) return -1;
    return !strcmp(what, "fail");
}

static int meddle(int fd) {
    int order;
    while ((order = ordered(fd)) < 0) usleep(10000);
    return order;
}

#define MEDDLED(name) \
    int name(int fd) { \
        static int (*real)(int); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        if (meddle(fd)) { errno = EIO; return -1; } \
        return real(fd); \
    }
MEDDLED(fsync)
MEDDLED(fdatasync)

static ssize_t counted(ssize_t written) {
    if (written > 0) __sync_fetch_and_add(&unsynced, written);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return counted(real(fd, bytes, length));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return counted(real(fd, bytes, length, at));
}
