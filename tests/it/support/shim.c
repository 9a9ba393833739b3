#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

/* What becomes of a call on a file whose path holds PART: "hold PART", "throttle KIB_PER_S PART" or "fail PART" of
   its syncs, "unwritable PART" or "full PART" of its writes, "unreadable PART" of its reads. 0, or the error that the
   call ends with. A sync that is held (-1) is asked about again until the order is taken back. */
static int ordered(int fd, const char *call) {
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
    if (!strcmp(call, "write")) return !strcmp(what, "unwritable") ? EIO : !strcmp(what, "full") ? ENOSPC : 0;
    if (!strcmp(call, "read")) return !strcmp(what, "unreadable") ? EIO : 0;
    if (kib_per_s) { transfer(kib_per_s); return 0; }
    if (!strcmp(what, "hold")) return -1;
    return !strcmp(what, "fail") ? EIO : 0;
}

static int meddle(int fd, const char *call) {
    int order;
    while ((order = ordered(fd, call)) < 0) usleep(10000);
    errno = order ? order : errno;
    return order;
}

#define MEDDLED(name) \
    int name(int fd) { \
        static int (*real)(int); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        return meddle(fd, "sync") ? -1 : real(fd); \
    }
MEDDLED(fsync)
MEDDLED(fdatasync)

/* "clock SECONDS": the wall clock says so many more, or less. */
int clock_gettime(clockid_t which, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    long more = 0;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int told = real(which, time);
    FILE *orders = which == CLOCK_REALTIME && getenv("SHIM_ORDERS") ? fopen(getenv("SHIM_ORDERS"), "r") : NULL;
    if (orders && fscanf(orders, "clock %ld", &more) == 1) time->tv_sec += more;
    if (orders) fclose(orders);
    return told;
}

static ssize_t counted(ssize_t written) {
    if (written > 0) __sync_fetch_and_add(&unsynced, written);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return meddle(fd, "write") ? -1 : counted(real(fd, bytes, length));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return meddle(fd, "write") ? -1 : counted(real(fd, bytes, length, at));
}

ssize_t read(int fd, void *bytes, size_t length) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "read");
    return meddle(fd, "read") ? -1 : real(fd, bytes, length);
}

ssize_t pread64(int fd, void *bytes, size_t length, off_t at) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread64");
    return meddle(fd, "read") ? -1 : real(fd, bytes, length, at);
}
