// Sends one frame again and again without any check: what afpacket is measured against. It reads how
// often from standard input, a number a line, and answers with the nanoseconds that this
// thread had a CPU for it.
//
// usage: send MODE IFINDEX CPU HEX, MODE sendto, sendmmsg or ring
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, SLOTS = 256, SLOT = 2048 };

static unsigned char frame[2048];
static int len, fd;
static char *mem;
static struct mmsghdr msgs[BATCH];

static void die(const char *what) {
	perror(what);
	exit(1);
}

static long cpu_time(void) {
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void by_sendto(long n) {
	while (n-- > 0)
		if (send(fd, frame, len, 0) != len)
			die("send");
}

static void by_sendmmsg(long n) {
	while (n > 0) {
		int sent = sendmmsg(fd, msgs, n < BATCH ? n : BATCH, 0);
		if (sent < 0)
			die("sendmmsg");
		n -= sent;
	}
}

static void by_ring(long n) {
	static int head, tail;
	while (n > 0 || tail != head) {
		
		while (n > 0 && (head + 1) % SLOTS != tail) {
			struct tpacket2_hdr *h = (void *)(mem + head * SLOT);
			memcpy((char *)h + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll), frame, len);
			h->tp_len = len;
			__atomic_store_n(&h->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
			head = (head + 1) % SLOTS;
			n--;
		}
		if (send(fd, NULL, 0, MSG_DONTWAIT) < 0 && errno != EAGAIN)
			die("send on the ring");
		while (tail != head && __atomic_load_n(&((struct tpacket2_hdr *)(mem + tail * SLOT))->tp_status, __ATOMIC_ACQUIRE) == TP_STATUS_AVAILABLE)
			tail = (tail + 1) % SLOTS;
	}
}

int main(int argc, char **argv) {
	if (argc != 5)
		return 2;
	cpu_set_t cpus;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[3]), &cpus);
	if (sched_setaffinity(0, sizeof cpus, &cpus))
		die("sched_setaffinity");
	for (const char *p = argv[4]; sscanf(p, "%2hhx", &frame[len]) == 1; p += 2)
		len++;
	if ((fd = socket(AF_PACKET, SOCK_RAW, 0)) < 0)
		die("socket");
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = atoi(argv[2])};
	memcpy(&to.sll_protocol, frame + 12, 2);
	if (bind(fd, (struct sockaddr *)&to, sizeof to))
		die("bind");
	struct iovec io = {frame, len};
	for (int i = 0; i < BATCH; i++)
		msgs[i].msg_hdr = (struct msghdr){.msg_iov = &io, .msg_iovlen = 1};
	void (*send_by)(long) = by_sendto;
	if (!strcmp(argv[1], "sendmmsg"))
		send_by = by_sendmmsg;
	if (!strcmp(argv[1], "ring")) {
		int version = TPACKET_V2;
		struct tpacket_req req = {.tp_block_size = 1 << 16, .tp_block_nr = SLOTS * SLOT >> 16, .tp_frame_size = SLOT, .tp_frame_nr = SLOTS};
		if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) || setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &req, sizeof req))
			die("PACKET_TX_RING");
		if ((mem = mmap(NULL, SLOTS * SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
			die("mmap");
		send_by = by_ring;
	}
	for (long n; scanf("%ld", &n) == 1;) {
		long start = cpu_time();
		send_by(n);
		printf("%ld\n", cpu_time() - start);
		fflush(stdout);
	}
}
