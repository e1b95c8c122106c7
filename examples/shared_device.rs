//! nearfield on the wgpu device that an application has opened for its own work.
//! `cargo run --release --example shared_device`

use nearfield::{Device, Flat, Metric, wgpu};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What an application does anyway: an adapter, and a device with the limits and features that it needs itself.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))
        .map_err(|e| format!("this example needs an adapter: {e}"))?;
    let wanted = wgpu::DeviceDescriptor { label: Some("application"), ..wgpu::DeviceDescriptor::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&wanted))?;

    // nearfield asks nothing more of it: it takes the limits and features as they are. Both are handles, so a clone
    // is the same device.
    let shared = Device::from_wgpu(device.clone(), queue.clone())?;
    let mut index = Flat::new(&shared, 2, Metric::L2)?;
    index.add(&[[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]])?;
    let hits = index.search(&[[0.9, 0.8]], 2)?;
    println!("{}: nearest to (0.9, 0.8): {:?}", shared.name(), hits.query(0).collect::<Vec<_>>());
    assert_eq!(hits.ids(), [2, 0]);

    // The application goes on with its own work on the same queue.
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("the application's"),
        size: 1024,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    queue.write_buffer(&buffer, 0, &[7; 1024]);
    queue.submit([]);
    device.poll(wgpu::PollType::wait_indefinitely())?;
    println!("The application's own buffer was written in between.");
    Ok(())
}
