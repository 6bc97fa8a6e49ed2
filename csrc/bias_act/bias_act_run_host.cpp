// A pass of bias_act on the CPU: cut into tasks, run by the kernel of the processor's instruction set, and its sums added up.

#include "bias_act/bias_act_host.h"
#include "bias_act/bias_act_job.h"
#include "common/cpu/isa.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(bias_act_tasks, void, (const BiasActJob& job, long long first, long long last))

namespace {

constexpr int64_t kTaskElements = 16384;  // below this waking a thread costs more than it saves

BiasActJob job_of(const BiasActPass& pass, const BiasActCall& call) {
  const BiasActView& view = pass.view;
  BiasActJob job{};
  job.storage = storage_code(pass.like.scalar_type());
  job.order = pass.order;
  job.planar = view.planar;
  job.numbers = call.numbers;
  job.samples = view.samples;
  job.channels = view.channels;
  job.pixels = view.pixels;
  const auto pointer = [](const Tensor& t) { return t.defined() ? t.const_data_ptr() : nullptr; };
  job.v = pointer(pass.v);
  job.x = pointer(pass.x);
  job.y = pointer(pass.y);
  job.t = pointer(pass.t);
  job.out = pass.out.pointer();
  job.out2 = pass.out2.pointer();
  job.scale = pass.scale.pointer();
  job.bias = pass.bias.pointer();
  job.noise = pass.noise.pointer();
  job.tscale = pass.tscale.pointer();
  job.tbias = pass.tbias.pointer();
  job.tnoise = pass.tnoise.pointer();
  job.scale_stride = pass.scale.stride;
  job.noise_stride = pass.noise.stride;
  job.tscale_stride = pass.tscale.stride;
  job.tnoise_stride = pass.tnoise.stride;
  job.reads_tscale = pass.reads_tscale;
  return job;
}

// The sums over chunks, and over samples too unless `by_sample`, in double and in a fixed order.
template <class T>
void add_up(const Tensor& sums, const BiasActJob& job, bool by_sample, std::vector<double>& out) {
  const T* p = sums.const_data_ptr<T>();
  const int64_t chunks = job.chunks();
  out.assign((by_sample ? job.samples : 1) * job.channels, 0);
  for (int64_t n = 0; n < job.samples; ++n) {
    double* row = out.data() + (by_sample ? n * job.channels : 0);
    if (job.planar) {
      for (int64_t c = 0; c < job.channels; ++c) {
        for (int64_t k = 0; k < chunks; ++k) row[c] += *p++;
      }
    } else {
      for (int64_t k = 0; k < chunks; ++k) {
        for (int64_t c = 0; c < job.channels; ++c) row[c] += *p++;
      }
    }
  }
}

Tensor channel_gradient(const Tensor& sums, const BiasActJob& job, const Tensor& like) {
  std::vector<double> total;
  const bool by_sample = like.dim() == 2;
  sums.scalar_type() == at::kDouble ? add_up<double>(sums, job, by_sample, total) : add_up<float>(sums, job, by_sample, total);
  const Tensor wide = at::from_blob(total.data(), like.sizes(), at::kDouble);
  return at::empty_like(like, at::MemoryFormat::Contiguous).copy_(wide);
}

template <class T>
void add_samples(const Tensor& sums, const Tensor& out) {
  const int64_t samples = sums.size(0), pixels = sums.size(1);
  const T* p = sums.const_data_ptr<T>();
  T* total = out.mutable_data_ptr<T>();
  for (int64_t i = 0; i < pixels; ++i) {
    double sum = 0;
    for (int64_t n = 0; n < samples; ++n) sum += p[n * pixels + i];
    total[i] = static_cast<T>(sum);
  }
}

// [samples, pixels] in the shape and dtype of the noise.
Tensor noise_gradient(const Tensor& sums, const Tensor& like) {
  Tensor total = sums;
  if (like.numel() != sums.numel()) {
    total = at::empty({sums.size(1)}, sums.options());
    sums.scalar_type() == at::kDouble ? add_samples<double>(sums, total) : add_samples<float>(sums, total);
  }
  return total.reshape(like.sizes()).to(like.scalar_type());
}

}  // namespace

std::array<Tensor, 3> run_bias_act_on_cpu(const BiasActPass& pass, const BiasActCall& call, const std::array<bool, 3>& wanted) {
  BiasActJob job = job_of(pass, call);
  // A gradient of the noise is summed over channels while it stays in the first cache.
  job.chunk = job.planar ? (wanted[2] ? 1024 : 4096) : std::max<int64_t>(kTaskElements / std::max<int64_t>(job.channels, 1) / 4 * 4, 4);
  std::array<Tensor, 3> sums;
  for (int i = 0; i < 2; ++i) {
    if (wanted[i]) sums[i] = at::empty({job.samples * job.chunks() * job.channels}, pass.wide);
  }
  if (wanted[2]) {
    sums[2] = job.channels > 0 ? at::empty({job.samples, job.pixels}, pass.wide) : at::zeros({job.samples, job.pixels}, pass.wide);
  }
  const auto pointer = [](const Tensor& t) { return t.defined() ? t.mutable_data_ptr() : nullptr; };
  job.sums = pointer(sums[0]);
  job.scale_sums = pointer(sums[1]);
  job.noise_sums = pointer(sums[2]);
  const int64_t tasks = job.tasks(), elements = pass.like.numel();
  if (elements > 0) {
    const auto kernel = bias_act_tasks_kernel();
    const int64_t grain = std::max<int64_t>(1, kTaskElements * tasks / elements);
    at::parallel_for(0, tasks, grain, [&](int64_t first, int64_t last) { kernel(job, first, last); });
  }
  return {
      wanted[0] ? channel_gradient(sums[0], job, call.b) : Tensor(), wanted[1] ? channel_gradient(sums[1], job, call.scale) : Tensor(),
      wanted[2] ? noise_gradient(sums[2], call.noise) : Tensor()};
}

}  // namespace gan_fast
